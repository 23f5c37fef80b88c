"""The public Python API, which users and commands call. Importing it loads the plug-ins (`plugins`)."""

from onebase import plugins

plugins.load()
