"""The zips of torch.save, read and built in place."""
