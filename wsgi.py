"""The way to run: `gunicorn wsgi:app`. gunicorn.conf.py beside this file makes the bare command right."""

from gateway.serving import application

app = application()
