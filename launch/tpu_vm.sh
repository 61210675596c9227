#!/bin/bash
# Trains on a TPU VM slice: the exact commands, from making the slice to deleting it.
#
#   PROJECT=my-project ZONE=us-central2-b BUCKET=my-bucket bash launch/tpu_vm.sh
#
# Every host of the slice runs the same command; launch.train finds the others by itself, feeds its
# own chips with its slice of each batch, and only the first host writes to the run folder. After a
# preemption the same command goes on from the last checkpoint, on a slice of any size that divides
# train.batch_size.
set -euo pipefail

: "${PROJECT:?name the Google Cloud project}" "${ZONE:?name a zone with TPUs}"
: "${BUCKET:?name a bucket in that zone, without gs://}"
NAME=${NAME:-jaxmm}                     # of the slice
TYPE=${TYPE:-v4-16}                     # 2 hosts with 4 chips each
VERSION=${VERSION:-tpu-ubuntu2204-base}
SOURCE=${SOURCE:-.}                     # a checkout of this repository
CONFIG=${CONFIG:-configs/av_digits.py:mla}
FLAGS=${FLAGS:-}                        # more flags, such as --config.train.batch_size=1024
WORKDIR=${WORKDIR:-runs/mla}            # on the disk of the first host

tpu() {
  gcloud compute tpus tpu-vm "$@" --project="$PROJECT" --zone="$ZONE"
}

everywhere() {
  tpu ssh "$NAME" --worker=all --command="$1"
}

# 1. The slice. --spot is cheaper and may be taken away at any time.
tpu describe "$NAME" >/dev/null 2>&1 ||
  tpu create "$NAME" --accelerator-type="$TYPE" --version="$VERSION" --spot

# 2. The program, on every host.
tpu scp --recurse --worker=all "$SOURCE" "$NAME":jaxmm
everywhere "python3 -m venv ~/venv && ~/venv/bin/pip install -q -e './jaxmm[tpu]'"

# 3. The run, which goes on from the last copy of its folder in the bucket. The other hosts hold no
# part of that folder; a data set of one's own (--config.data.path) must lie on every host.
tpu ssh "$NAME" --worker=0 --command="mkdir -p jaxmm/$WORKDIR &&
  gcloud storage rsync --recursive gs://$BUCKET/$WORKDIR jaxmm/$WORKDIR || true"
status=0
everywhere "cd jaxmm && ~/venv/bin/python -m launch.train --config=$CONFIG --workdir=$WORKDIR $FLAGS" ||
  status=$?
tpu ssh "$NAME" --worker=0 \
  --command="gcloud storage rsync --recursive jaxmm/$WORKDIR gs://$BUCKET/$WORKDIR"

# 4. The end, unless the run was stopped or failed, and is to go on here.
if [ "$status" = 0 ]; then
  tpu delete "$NAME" --quiet
fi
exit "$status"
