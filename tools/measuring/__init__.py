"""Parts of the measuring scripts of this repository, and the documents with their figures."""
