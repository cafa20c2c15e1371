"""What workloads used by UTC day: accounted from recorded steps, kept longer than the workloads themselves."""
