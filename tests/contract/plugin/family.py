"""A family of its own model_type in Llama's layout."""

from dataclasses import replace

from onebase.interop.families import register
from onebase.interop.families.llama import FAMILY

register(replace(FAMILY, model_types=("mine",)))
