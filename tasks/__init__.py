"""What a flow calls: the only place that knows Prefect's and DVC's policy."""
