"""Images with captions and labels: tables, shards, folders."""
