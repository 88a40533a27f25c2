"""What ``import fedflair`` offers: functions and values for Python, over the rooms that commands are made of."""
