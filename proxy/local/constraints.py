"""The form that a client wants its answer in: OpenAI's `response_format`, and the names that other servers' clients use.

One of them at a time: each becomes the engine's grammar, or is refused by name.
"""

import msgspec
from quiver.schemas import errors
from quiver.schemas.engine import Grammar, Schema
from quiver.schemas.errors import ApiError
from quiver.schemas.openai import ChatRequest, GenerationOptions, ResponseFormat

from .gbnf import BadGrammar, is_gbnf, to_lark

ANY_OBJECT: dict[str, object] = {"type": "object"}


def wanted_form(options: GenerationOptions) -> Grammar | None:
    """The grammar of the answer, if the client asks for one. Raises `ApiError`."""
    found = _named_forms(options)
    if isinstance(options, ChatRequest) and options.response_format is not None:
        form = _response_format(options.response_format)
        found += [form] if form is not None else []
    if len(found) > 1:
        fields = " and ".join(f"`{form.field}`" for form in found)
        message = f"{fields} cannot be asked for together"
        raise ApiError(errors.INVALID_REQUEST, message, param=found[1].field)
    return found[0] if found else None


def _named_forms(options: GenerationOptions) -> list[Grammar]:
    """What is asked for by the fields of vLLM's and llama.cpp's clients."""
    outputs = options.structured_outputs
    found: list[Grammar] = []
    schemas = {"guided_json": options.guided_json, "json_schema": options.json_schema}
    texts = {"guided_grammar": options.guided_grammar, "grammar": options.grammar}
    regexes = {"guided_regex": options.guided_regex}
    choices = {"guided_choice": options.guided_choice}
    if outputs is not None:
        schemas["structured_outputs.json"] = outputs.json
        texts["structured_outputs.grammar"] = outputs.grammar
        regexes["structured_outputs.regex"] = outputs.regex
        choices["structured_outputs.choice"] = outputs.choice
    found += [Grammar(field, json=_schema(field, value)) for field, value in schemas.items() if value is not None]
    found += [Grammar(field, lark=_lark(field, value)) for field, value in texts.items() if value]
    found += [Grammar(field, regex=value) for field, value in regexes.items() if value]
    found += [Grammar(field, choice=value) for field, value in choices.items() if value is not None]
    return found


def _response_format(form: ResponseFormat) -> Grammar | None:
    match form.type:
        case "text":
            return None
        case "json_object":
            return Grammar("response_format", json=ANY_OBJECT)
        case "json_schema":
            named = form.json_schema
            if named is None or named.schema is None:
                message = "`response_format` of type `json_schema` needs `json_schema` with a `schema`"
                raise ApiError(errors.INVALID_REQUEST, message, param="response_format")
            return Grammar("response_format", json=named.schema, strict=bool(named.strict))
        case other:
            message = (
                f"`response_format` is not supported here: `{other[:64]}` is none of text, json_object, json_schema"
            )
            raise ApiError(errors.UNSUPPORTED_PARAMETER, message, param="response_format")


def answer_schema(form: Grammar | None) -> Schema | None:
    """The form of an answer that may call tools instead. Raises `ApiError` where it is no schema."""
    if form is None:
        return None
    if form.json is msgspec.UNSET:
        message = f"`{form.field}` cannot be asked for together with `tools`"
        raise ApiError(errors.INVALID_REQUEST, message, param=form.field)
    return Schema(form.json, strict=form.strict)


def _lark(field: str, text: str) -> str:
    try:
        return to_lark(text) if is_gbnf(text) else text
    except BadGrammar as error:
        raise ApiError(errors.INVALID_REQUEST, f"`{field}`: {error}", param=field) from None


def _schema(field: str, value: dict[str, object] | str) -> object:
    """A schema, which vLLM's clients may send as its text."""
    if not isinstance(value, str):
        return value
    try:
        return msgspec.json.decode(value, type=dict[str, object])
    except msgspec.DecodeError as error:
        raise ApiError(
            errors.INVALID_REQUEST, f"`{field}` is not the text of a JSON schema: {error}", param=field
        ) from None
