"""Options that every corpus takes, whatever its format; `schemas.formats.corpus` follows them."""

PICTURE_RANGE = "picture-range"
COLUMNS = "columns"
"""Option of formats of tables: a JSON object of columns by our names."""
COMMON_OPTIONS = {
    PICTURE_RANGE: "values that are black and white in pictures of more than 8 bits, such as 0:4000; refused without"
}
"""By name, with a sentence for people; a format has others of its own."""
