"""What a round is made of: clients, sums, the server's step."""
