"""From what users have on disk to prepared data sets, one builder for each."""
from jaxmm.data.prepare import cremad

# By name: layout(source, options) -> Layout, what is in a user's folder.
BUILDERS = {"cremad": cremad.layout}
