"""The face: what users and commands call. What other packages bring (`plugins`) is known from here on."""

from onebase import plugins

plugins.load()
