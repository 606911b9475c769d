"""Generation endpoints, one file each, shared by live calls and batch lines."""
