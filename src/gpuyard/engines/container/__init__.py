"""The container runtime: units as containers of the Podman or Docker that this machine has."""
