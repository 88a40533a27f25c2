"""From a source's records to the packed store, or to the layout of another tool."""
