"""The audit of the privacy path: canary clients through the very rounds that training is made of."""
