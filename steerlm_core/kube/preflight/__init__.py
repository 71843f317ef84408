"""What `doctor` looks at before anything is started: controllers, quotas, dry runs, what the platform file names."""
