"""The commands: flags, and one call into `jaxmm.experiments` each."""

COMMANDS = {
    "train": "train one model and leave a run folder", "evaluate": "evaluate and analyse a trained model",
    "predict": "predict rows without labels", "export": "write a model for programs without jaxmm",
    "compare": "compare methods over several seeds",
    "advise": "say which method to train, on your data",
    "prepare": "turn a data set on disk into records",
    "convert": "turn weights of other programs into .safetensors",
    "encode": "compute the features of a data set once", "bench": "time training steps",
    "list": "list methods, recipes, configs, data sets, encoders, options"}
