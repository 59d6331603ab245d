"""What is deployed: files of servers and runtimes, and the exit that each of them selects."""
