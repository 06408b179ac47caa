"""Real servers on the loopback interface that stand in for the ones the gateway talks to."""
