"""What a deployment agent and a container manager both stand on."""
