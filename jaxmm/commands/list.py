"""Lists what there is to choose from.

    jaxmm list methods              # with a line and the paper of each
    jaxmm list configs              # that --config=NAME:METHOD finds from any folder
    jaxmm list recipes              # for --config=NAME:recipe=default
    jaxmm list datasets
    jaxmm list encoders
    jaxmm list options [METHOD]     # of a method; of every run
"""
from absl import flags

FLAGS = flags.FlagValues()
ARGUMENTS = ("KIND", "METHOD")      # on the command line, in this order, each of which may be left out


def main(kind: str = "", method: str = "") -> None:
    from jaxmm.errors import all_as_typed
    from jaxmm.experiments import listing
    print(listing.listing(kind, method) if kind else all_as_typed(__doc__))
