"""The watcher: what accounts share, which groups that makes, and how sure we are of each."""
