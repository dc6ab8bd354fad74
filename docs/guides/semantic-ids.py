# %% [markdown]
# # Semantic IDs for recommendation and retrieval
#
# At the end each item of a catalogue will have an ID of three codes, such as `<a_12> <b_3> <c_27>`. Items that are
# alike share their first codes, no two items share an ID, and new items get IDs without a new training. A language
# model can then generate an item code by code, as in TIGER [1], instead of ranking all items.
#
# Our catalogue is the Python library that you have: an item is a function or a class, and its text is its
# docstring.

# %%
import importlib
import inspect
import tempfile

import matplotlib.pyplot as plt
import torch
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from torch.nn import functional as F

import quantizers
from quantizers import SemanticIDs

torch.manual_seed(0)

MODULES = """
argparse array ast base64 bisect bz2 calendar cmath collections colorsys configparser contextlib copy csv
datetime decimal difflib dis email.message enum filecmp fileinput fnmatch fractions ftplib functools gettext
glob gzip hashlib heapq hmac html http.client http.cookiejar http.server imaplib inspect io ipaddress
itertools json linecache locale logging logging.handlers lzma mailbox math mimetypes operator os os.path
pathlib pickle platform plistlib poplib pprint queue random re sched secrets selectors shelve shlex shutil
smtplib socket socketserver sqlite3 ssl stat string struct subprocess sysconfig tarfile tempfile textwrap
threading time timeit tokenize traceback types unicodedata unittest unittest.mock urllib.parse urllib.request
uuid venv wave weakref xml.dom.minidom xml.etree.ElementTree zipfile zlib
"""


def members(name, owner, depth=2):
    """The public functions and classes of a module, and the methods of its classes, with their docstrings."""
    for part, value in vars(owner).items():
        if not part.startswith("_") and (inspect.isroutine(value) or inspect.isclass(value)):
            yield f"{name}.{part}", inspect.getdoc(value) or ""
            if inspect.isclass(value) and depth > 1:
                yield from members(f"{name}.{part}", value, depth - 1)


catalogue = {}
for module in MODULES.split():
    for name, text in members(module, importlib.import_module(module)):
        if len(text) > 60:
            catalogue.setdefault(text, name)  # a docstring once
texts, items = list(catalogue), list(catalogue.values())
print(len(items), "items, such as", ", ".join(items[:3]))

# %% [markdown]
# ## Embeddings
#
# Any vectors will do in which near means alike: from a sentence encoder, a two-tower model, an image encoder. To
# stay offline we take the principal directions of TF-IDF weights (latent semantic analysis), scaled to unit
# length, so that the Euclidean distance orders items as the cosine does.
#
# We leave two modules out. Their items will come later, as new items do.

# %%
is_new = torch.tensor([item.split(".")[0] in ("bz2", "lzma") for item in items])
old_texts = [text for text, new in zip(texts, is_new, strict=True) if not new]
tfidf = TfidfVectorizer(sublinear_tf=True, min_df=2, stop_words="english").fit(old_texts)
svd = TruncatedSVD(64, random_state=0).fit(tfidf.transform(old_texts))
embeddings = F.normalize(torch.from_numpy(svd.transform(tfidf.transform(texts))).float(), dim=-1)
old = embeddings[~is_new]
old_items = [item for item, new in zip(items, is_new, strict=True) if not new]

# %% [markdown]
# ## IDs
#
# One call fits a residual quantizer by k-means, the first codebook to the embeddings and each further one to what
# the codebooks before it have left, and gives each item an ID.

# %%
ids = quantizers.semantic_ids(old, levels=3, codebook_size=32, items=old_items)
print(ids)
print("gzip.open is", *ids.tokens("gzip.open"))
print("The same first two codes:", ", ".join(ids.neighbours("gzip.open", levels=2)[:6]))
assert ids.collision_rate == 0

# %% [markdown]
# ## Do prefixes share meaning?
#
# If they do, an item and its nearest neighbour often begin alike. We compare with two items drawn at random.

# %%
similarity = old @ old.T
nearest = similarity.fill_diagonal_(-1).argmax(1)
other = torch.randperm(len(old))
share, chance = (
    [100 * float((ids.codes[:, :n] == ids.codes[pairs, :n]).all(1).float().mean()) for n in (1, 2)]
    for pairs in (nearest, other)
)
assert share[0] > 5 * chance[0]

# %% [markdown]
# The other question is how many codes are enough. Items whose embeddings are near each other have the same nearest
# codes; the less room there is, the more of them collide.

# %%
sizes = (8, 16, 32, 64, 128)
collided = {
    levels: [
        100 * quantizers.semantic_ids(old, levels=levels, codebook_size=size, collisions="keep").collision_rate
        for size in sizes
    ]
    for levels in (2, 3, 4)
}

figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
for place, (values, label) in enumerate(((share, "nearest neighbour"), (chance, "random item"))):
    bars = left.bar([n + 0.4 * place for n in (0, 1)], values, 0.4, label=label)
    left.bar_label(bars, fmt="%.1f")
left.set_xticks((0.2, 1.2), ("first code", "first two codes"))
left.set(ylabel="% of items that share it", ylim=(0, 1.25 * max(share)))
left.legend()
for levels, values in collided.items():
    right.plot(sizes, values, "o-", label=f"{levels} levels")
right.set(xscale="log", xlabel="codes per level", ylabel="% of items that collide")
right.set_xticks(sizes, sizes)
right.minorticks_off()
right.legend()
plt.show()

# %% [markdown]
# ## Collisions
#
# `collisions=` says what becomes of items with equal codes. The quantizer need not be fitted again for this:

# %%
for policy in ("next_code", "auction", "extra_level", "keep"):
    table = SemanticIDs.from_quantizer(ids.quantizer, old, items=old_items, collisions=policy)
    decoded = ids.quantizer.decode(table.codes[:, :3]).detach()
    error = float((old - decoded).square().sum() / (old - old.mean(0)).square().sum())
    print(f"{policy:11} {table.sizes}, {table.collision_rate:5.1%} share an ID, error {error:.1%} of variance")

# %% [markdown]
# - `next_code`, the default, and `auction` move items that collide to free codes nearby. IDs stay short; the error
#   says what that costs.
# - `extra_level` counts the items with equal codes by one more number, as TIGER does. Each code stays the nearest.
# - `keep` lets them share an ID, which is right where they are the same thing in several colours.
#
# ## New items
#
# The items left out get IDs that are free. The quantizer and all old IDs stay, so a model that was trained on them
# remains valid.

# %%
before = ids.codes.clone()
ids.extend(embeddings[is_new], items=[item for item in items if item not in ids])
assert torch.equal(ids.codes[: len(before)], before)
assert ids.collision_rate == 0
print("lzma.open is", *ids.tokens("lzma.open"))
print("Near it:", ", ".join(ids.neighbours("lzma.open", levels=2)[:6]))

# %% [markdown]
# Where new items differ from the old ones, their error grows, and it is time to fit again.
#
# ## For a language model
#
# `vocabulary()` lists the tokens to add, `tokens(item)` spells an item. In generation, `next_codes(prefix)` are
# the codes that lead to an item: mask all others, and what comes out exists. Here random logits stand in for the
# model:

# %%
print(len(ids.vocabulary()), "new tokens:", *ids.vocabulary()[:3], "...")
prefix = ()
while len(prefix) < len(ids.sizes):
    logits = torch.randn(ids.sizes[len(prefix)])
    allowed = ids.next_codes(prefix)
    prefix += (allowed[int(logits[allowed].argmax())],)
print(prefix, "is", *ids.items_with(prefix))

with tempfile.TemporaryDirectory() as folder:
    ids.save(folder)  # the table and its quantizer
    assert SemanticIDs.load(folder)["gzip.open"] == ids["gzip.open"]

# %% [markdown]
# ## k-means or an RQ-VAE
#
# TIGER trains an autoencoder with a residual quantizer on the embeddings, `quantizers.create("preset:tiger")`.
# k-means on the embeddings themselves, as above, has no training that can fail, and distances keep their meaning.
# Train an autoencoder where embeddings should be combined with something else, such as behaviour; then pass its
# quantizer and its latents to `SemanticIDs.from_quantizer`.
#
# ## Where to go on
#
# - [Fitting codebooks](../fitting-codebooks.md): the same from the command line, on files larger than memory, with
#   measurements on 50,000 items and a comparison with faiss.
# - [Residual quantization](../methods/residual.md), [product codes](../methods/opq.md) for compressed search.
# - [Presets](../presets.md), with sources.
#
# [1] Rajput et al.: Recommender Systems with Generative Retrieval, 2023,
# [2305.05065](https://arxiv.org/abs/2305.05065)
