r"""The small laboratory's tokenizer: whole words, single digits, and a few marks as one token.

`\boxed{`, `[[A]]` and `[[B]]` are one token each; every digit is a token, so that arithmetic can be
done by columns. White space between tokens carries no meaning except the newline; decoding puts the
one canonical spacing back, so `decode(encode(text)) == text` for every text of the laboratory.
"""

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from psr_lib import problems

PAD, EOS, UNK = "<pad>", "<eos>", "<unk>"
MARKS = ("\n", "\\boxed{", "}", "[[A]]", "[[B]]", ".", ",", ":", "?", "+", "-", "*", "=")
WORDS = (
    "Problem", "Solution", "Steps", "Step", "Review", "Quote", "so", "far", "has", "have",
    "had", "some", "Then", "Now", "times", "as", "many", "How", "does", "did", "at", "first",
    "undo", "The", "answer", "is", "A", "B", "yes", "no", "end", "none",
)  # fmt: skip
SPACE = "\u2581"  # stands for the space before a token
PIECE = r"\\boxed\{|\[\[[AB]\]\]|\d|[A-Za-z]+|\n|[^\s\w]"


def vocabulary() -> list[str]:
    """All tokens, specials first; without the space mark."""
    digits = [str(n) for n in range(10)]
    verbs = [verb for verb in problems.KINDS if verb != "times"]
    return [*MARKS, *digits, *WORDS, *problems.NAMES, *problems.ITEMS, *verbs]


def build() -> PreTrainedTokenizerFast:
    """The tokenizer, ready to be saved with `save_pretrained`."""
    ids = {PAD: 0, EOS: 1, UNK: 2}
    for token in vocabulary():
        ids[SPACE + token] = len(ids)
    core = Tokenizer(models.WordLevel(ids, unk_token=UNK))
    core.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex("[ \t]+"), behavior="removed"),
        pre_tokenizers.Split(Regex(PIECE), behavior="isolated"),
        pre_tokenizers.Metaspace(SPACE, prepend_scheme="always", split=False),
    ])  # fmt: skip
    core.decoder = decoders.Sequence([
        decoders.Replace(SPACE, " "),
        decoders.Fuse(),
        decoders.Replace(Regex(r"(?<=\d) (?=\d)"), ""),
        decoders.Replace(Regex(r" (?=[.,:?}\n])"), ""),
        decoders.Replace(Regex(r"(?<=[{\n]) "), ""),
        decoders.Replace(Regex(r"^ "), ""),
    ])  # fmt: skip
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token=PAD, eos_token=EOS, unk_token=UNK,
        clean_up_tokenization_spaces=False, model_max_length=1024, padding_side="left",
    )  # fmt: skip
