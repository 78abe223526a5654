"""What benchmarks/crash_campaign.py is made of."""
