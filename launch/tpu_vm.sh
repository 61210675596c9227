#!/bin/bash
# Trains on a TPU VM slice: the exact commands, from making the slice to deleting it.
#
#   PROJECT=my-project ZONE=us-central2-b BUCKET=my-bucket bash launch/tpu_vm.sh
#
# Every host of the slice runs the same command; launch.train finds the others by itself, feeds its
# own chips with its slice of each batch, and only the first host writes to the run folder. The
# folder is copied to the bucket all the while, so that after a preemption, which takes the disks
# along, the same command resumes from the last copy, on a slice of any size that divides
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
RUN=${RUN:-mla}                         # the run folder is runs/$RUN, on the first host
EVERY=${EVERY:-300}                     # seconds between two copies to the bucket

tpu() {
  gcloud compute tpus tpu-vm "$@" --project="$PROJECT" --zone="$ZONE"
}

on() {      # on WORKERS COMMAND
  tpu ssh "$NAME" --worker="$1" --command="$2"
}

# 1. The slice; one that was taken away is made again. --spot is cheaper and may be taken any time.
if state=$(tpu describe "$NAME" --format="value(state)" 2>/dev/null) && [ "$state" != READY ]; then
  tpu delete "$NAME" --quiet
  state=
fi
[ -n "${state:-}" ] || tpu create "$NAME" --accelerator-type="$TYPE" --version="$VERSION" --spot

# 2. The program as it is committed, on every host.
archive=$(mktemp --suffix=.tar.gz)
git -C "$SOURCE" archive --prefix=jaxmm/ --output="$archive" HEAD
tpu scp --worker=all "$archive" "$NAME":jaxmm.tar.gz
rm "$archive"
on all "tar -xzf jaxmm.tar.gz && python3 -m venv ~/venv && ~/venv/bin/pip install -q -e './jaxmm[all,tpu]'"

# 3. The run, which goes on from the copy in the bucket; if that cannot be read, nothing starts. The
# other hosts hold no part of the folder; a data set of one's own (--config.data.path) must lie on
# every host. What is copied is the folder as it was at one moment (hard links, which take no room);
# what is no longer in it leaves the bucket when all that is new has arrived.
rsync="gcloud storage rsync --recursive"
copy="cd jaxmm && flock copy.lock bash -c 'rm -rf copy && cp -al runs/$RUN copy &&
  find copy -path \"*/checkpoints/*\" -print -quit | grep -q . &&
  $rsync copy gs://$BUCKET/runs/$RUN &&
  $rsync --delete-unmatched-destination-objects copy gs://$BUCKET/runs/$RUN'"
on 0 "cd jaxmm && mkdir -p runs/$RUN && echo jaxmm | gcloud storage cp - gs://$BUCKET/runs/name &&
  $rsync gs://$BUCKET/runs runs"
while sleep "$EVERY" >/dev/null 2>&1; do
  on 0 "$copy" || true      # the next one makes up for it
done &
copies=$!
on all "cd jaxmm && ~/venv/bin/python -m launch.train --config=$CONFIG --workdir=runs/$RUN $FLAGS" &
training=$!
# Whatever ends this script ends the copies, which would otherwise meet those of the next one.
trap 'kill "$copies" "$training" 2>/dev/null || true' EXIT
trap 'exit 143' TERM INT HUP
status=0
wait "$training" || status=$?
kill "$copies"
wait "$copies" || true
if ! on 0 "$copy" && [ "$status" = 0 ]; then
  status=1                              # the slice stays, with the run that the bucket lacks
fi

# 4. The end, unless the run was stopped or failed, and is to go on here.
if [ "$status" = 0 ]; then
  tpu delete "$NAME" --quiet
fi
exit "$status"
