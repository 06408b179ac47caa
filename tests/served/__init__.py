"""The gateway as it is served: by real gunicorn, to real clients, in front of scripted providers."""
