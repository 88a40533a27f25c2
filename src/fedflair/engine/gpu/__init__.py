"""What a GPU needs: graphs of local steps, streams, batches of fixed sizes."""
