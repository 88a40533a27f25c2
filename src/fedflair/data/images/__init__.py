"""From encoded photographs to network inputs."""
