"""The commands: flags, and one call into `jaxmm.experiments` each."""
