"""The word-level tokenizer of the reference models."""

from collections.abc import Iterable, Mapping

from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

MAX_TOKENS = 32
"""Positions of the text tower, start and end token included."""

PAD, UNKNOWN, START, END = "<|pad|>", "<|unknown|>", "<|startoftext|>", "<|endoftext|>"


def build_tokenizer(
    captions: Iterable[str], more_words: Iterable[str] = (), spellings: Mapping[str, str] | None = None
) -> PreTrainedTokenizerFast:
    """Builds a word-level tokenizer: lower case, punctuation dropped.

    The end token has the largest id. `CLIPTextModel` pools at the first end token, or, when its config says
    `eos_token_id=2`, at the largest id: with both set to the last id of the vocabulary the pooled state has read the whole
    caption either way.

    Args:
        captions: Texts whose words are known.
        more_words: Other words that are known.
        spellings: Other spellings of words, such as "gray", by what they are read as, such as "grey".

    Returns:
        A tokenizer with start, end, pad and unknown tokens, padding on the right, 32 tokens at most.
    """
    words = sorted({word for text in captions for word in text.split()})
    words += sorted(set(more_words) - set(words))
    vocabulary = {token: index for index, token in enumerate([PAD, UNKNOWN, START, *words, END])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Lowercase(),
            normalizers.Replace(Regex(r"[^\w\s<>|]"), " "),
            *(normalizers.Replace(Regex(rf"\b{other}\b"), word) for other, word in (spellings or {}).items()),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(START, vocabulary[START]), (END, vocabulary[END])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=START,
        eos_token=END,
        pad_token=PAD,
        unk_token=UNKNOWN,
        model_max_length=MAX_TOKENS,
        padding_side="right",
        model_input_names=["input_ids", "attention_mask"],
    )
