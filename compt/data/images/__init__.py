"""Images with captions and labels, in tables, shards and folders."""
