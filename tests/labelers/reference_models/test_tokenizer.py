from vlm_rewards.labelers.reference_models.tokenizer import MAX_TOKENS, build_tokenizer

CAPTIONS = ["a red ball", "the ball is red", "two balls"]


def test_words_of_captions_and_others_are_known():
    tokenizer = build_tokenizer(CAPTIONS, ["blue", "red"])
    # Pad, unknown, start, then the captions' words and the others, each in order, then end.
    assert tokenizer.convert_ids_to_tokens(range(len(tokenizer))) == [
        "<|pad|>",
        "<|unknown|>",
        "<|startoftext|>",
        *("a", "ball", "balls", "is", "red", "the", "two"),
        "blue",
        "<|endoftext|>",
    ]
    assert tokenizer("a blue cube").input_ids == [2, 3, 10, 1, 11]


def test_the_end_token_has_the_largest_id_and_ends_every_caption():
    tokenizer = build_tokenizer(CAPTIONS)
    assert tokenizer.eos_token_id == len(tokenizer) - 1 != 2
    ids = tokenizer(["a red ball", "a xylophone " + "a " * 100], truncation=True).input_ids
    assert all(row[0] == tokenizer.bos_token_id and row[-1] == tokenizer.eos_token_id for row in ids)
    assert len(ids[1]) == MAX_TOKENS
    assert tokenizer.unk_token_id in ids[1]


def test_case_punctuation_and_other_spellings_do_not_matter():
    tokenizer = build_tokenizer(CAPTIONS, (), {"rot": "red", "kugel": "ball"})
    assert tokenizer("A ROT, Kugel!").input_ids == tokenizer("a red ball").input_ids
    assert tokenizer("a rotten ball").input_ids == tokenizer("a xylophone ball").input_ids  # whole words alone
