"""What a person reads after a measurement: report.html and report.md with their pictures, and bench.json."""
