"""pfl-research and fedflair on one file, with randomness taken out (``solve.py``) and with it (``curves.py``)."""
