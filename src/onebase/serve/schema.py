"""Request schemas in OpenAI's format. Fields for unsupported features are refused, unknown fields are ignored."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictInt,
    ValidationError,
    field_validator,
    model_validator,
)

from onebase.engine.constrain import Constraint
from onebase.engine.sampler import Sampling
from onebase.errors import UserError

STOPS, STOP_LETTERS, PROMPTS, MESSAGES, TOP, TEXTS = 16, 256, 16, 1024, 20, 256
"""Limits of a request: stop strings, characters in one, prompts, messages, top tokens shown, inputs of a task."""

# Unsupported fields that would change the answer, with the neutral values that are accepted.
_UNSUPPORTED: Mapping[str, tuple[Any, ...]] = {
    "n": (None, 1),
    "best_of": (None, 1),
    "suffix": (None, ""),
    "presence_penalty": (None, 0),
    "frequency_penalty": (None, 0),
    "logit_bias": (None, {}),
    "tools": (None, []),
    "tool_choice": (None, "none", "auto"),
    "functions": (None, []),
    "function_call": (None, "none", "auto"),
    "grammar": (None, ""),  # of other servers, in other grammars' syntax
    "json_schema": (None,),
    "guided_json": (None,),
    "guided_regex": (None,),
    "guided_choice": (None,),
    "guided_grammar": (None,),
    "modalities": (None, ["text"]),
    "audio": (None,),
    "prediction": (None,),
    "web_search_options": (None,),
    "chat_template": (None,),
    "chat_template_kwargs": (None, {}),
}


Variables = Annotated[dict[str, str | int | float], Field(max_length=64)]
"""Values for the variables of a saved prompt."""


class StreamOptions(BaseModel):
    include_usage: bool = False


class NamedSchema(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True, protected_namespaces=())

    schema_: dict[str, Any] = Field(alias="schema")


class ResponseFormat(BaseModel):
    """OpenAI's field: free text, any JSON object, or JSON that matches a schema (always enforced: `strict` is ignored)."""

    model_config = ConfigDict(extra="ignore", strict=True)

    type: Literal["text", "json_object", "json_schema"]
    json_schema: NamedSchema | None = None

    @model_validator(mode="after")
    def _whole(self) -> "ResponseFormat":
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("'json_schema' goes with the type json_schema, and only with it")
        return self

    @property
    def constraint(self) -> Constraint | None:
        if self.json_schema is not None:
            return Constraint(schema=self.json_schema.schema_)
        return Constraint(schema={"type": "object"}) if self.type == "json_object" else None


class StructuredOutputs(BaseModel):
    """vLLM's field: one of a JSON schema, a regular expression, a grammar (in Lark's syntax). JSON is compact unless
    `disable_any_whitespace` is false."""

    model_config = ConfigDict(extra="forbid", strict=True)

    json_: dict[str, Any] | str | None = Field(default=None, alias="json")
    regex: str | None = None
    grammar: str | None = None
    disable_any_whitespace: bool = True

    @property
    def constraint(self) -> Constraint:
        return Constraint(
            schema=self.json_, regex=self.regex, grammar=self.grammar, spaces=not self.disable_any_whitespace
        )


class _Request(BaseModel):
    """Fields that chat and text requests share."""

    model_config = ConfigDict(extra="ignore", strict=True)

    model: str
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[StrictInt, Field(ge=0)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[StrictInt, Field(ge=-1)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    seed: StrictInt | None = None
    stop: str | list[str] | None = None
    variables: Variables | None = None  # of a saved prompt; not one of OpenAI's fields
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None

    @model_validator(mode="before")
    @classmethod
    def _only_what_we_do(cls, data: Any) -> Any:
        if isinstance(data, dict):
            for name, neutral in _UNSUPPORTED.items():
                if name not in cls.model_fields and name in data and data[name] not in neutral:
                    raise ValueError(f"'{name}' is not supported by this server; leave it out")
        return data

    @field_validator("stop")
    @classmethod
    def _few_stops(cls, stop: str | list[str] | None) -> str | list[str] | None:
        each = [stop] if isinstance(stop, str) else stop or []
        if len(each) > STOPS or any(not 1 <= len(s) <= STOP_LETTERS for s in each):
            raise ValueError(f"at most {STOPS} stop strings of 1 to {STOP_LETTERS} characters")
        return stop

    @property
    def constraint(self) -> Constraint | None:
        """The constraint on the answer's format. Raises RequestError."""
        constraints = []
        for field in ("response_format", "structured_outputs"):
            value = getattr(self, field)
            try:
                constraint = None if value is None else value.constraint
            except UserError as e:
                raise RequestError(400, e.cause, e.remedy, param=field) from None
            constraints += [] if constraint is None else [constraint]
        if len(constraints) > 1:
            raise RequestError(
                400, "two formats for one answer", "give one of response_format and structured_outputs"
            )
        return constraints[0] if constraints else None

    @property
    def wants_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    def _sampling(self, most: int, logprobs: int | None) -> Sampling:
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        return Sampling(
            max_tokens=most,
            temperature=1.0 if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            top_k=max(self.top_k or 0, 0),
            min_p=self.min_p or 0.0,
            seed=self.seed,
            stop=stop,
            logprobs=logprobs,
            constraint=self.constraint,
        )


class TextPart(BaseModel):
    type: Literal["text"]
    text: str


class ChatMessage(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    role: str
    content: str | list[TextPart]

    def plain(self) -> dict[str, str]:
        """The message as the chat template reads it."""
        text = self.content if isinstance(self.content, str) else "".join(p.text for p in self.content)
        return {"role": self.role, "content": text}


class ChatRequest(_Request):
    """POST /v1/chat/completions."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MESSAGES)]
    max_completion_tokens: Annotated[StrictInt, Field(ge=1)] | None = None
    logprobs: bool | None = False
    top_logprobs: Annotated[StrictInt, Field(ge=0, le=TOP)] | None = None

    def sampling(self, context: int) -> Sampling:
        """Sampling options; without a limit the answer may fill the context."""
        most = self.max_completion_tokens if self.max_completion_tokens is not None else self.max_tokens
        return self._sampling(
            context if most is None else most, (self.top_logprobs or 0) if self.logprobs else None
        )


class TextRequest(_Request):
    """POST /v1/completions."""

    prompt: str | list[str] | list[StrictInt] | list[list[StrictInt]]
    logprobs: Annotated[StrictInt, Field(ge=0, le=TOP)] | None = None
    echo: bool | None = False
    suffix: str | None = None

    @model_validator(mode="after")
    def _suffix_alone(self) -> "TextRequest":
        if self.suffix and (self.echo or not self._is_text):
            raise ValueError("'suffix' needs a text prompt, and no 'echo'")
        return self

    @property
    def _is_text(self) -> bool:
        return isinstance(self.prompt, str) or all(isinstance(p, str) for p in self.prompt)

    @field_validator("prompt")
    @classmethod
    def _some_prompts(cls, prompt: Any) -> Any:
        if isinstance(prompt, list) and not prompt:
            raise ValueError("the list of prompts is empty")
        if isinstance(prompt, list) and not isinstance(prompt[0], int) and len(prompt) > PROMPTS:
            raise ValueError(f"at most {PROMPTS} prompts in one request, given {len(prompt)}")
        return prompt

    def prompts(self) -> list[str] | list[list[int]]:
        """The prompts, as texts or as token ids."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if isinstance(self.prompt[0], int):
            return [[int(i) for i in self.prompt]]
        return self.prompt

    def sampling(self) -> Sampling:
        """Sampling options; the default limit is 16 tokens, as OpenAI's."""
        return self._sampling(16 if self.max_tokens is None else self.max_tokens, self.logprobs)


def explain(error: ValidationError) -> tuple[str, str | None]:
    """The first problem of a request, in one line, and its field."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    # The path of a field with several types also names the type that was tried.
    where = ".".join(str(p) for p in first["loc"] if isinstance(p, int) or (p.isidentifier() and p != "str"))
    text = first["msg"].removeprefix("Value error, ")
    return (f"{where}: {text}" if where else text), (str(first["loc"][0]) if first["loc"] else None)


class RequestError(UserError):
    """A refused request: the HTTP status, and OpenAI's `code` and `param`."""

    def __init__(
        self, status: int, cause: str, remedy: str = "", *, code: str | None = None, param: str | None = None
    ) -> None:
        super().__init__(cause, remedy)
        self.status, self.code, self.param = status, code, param
