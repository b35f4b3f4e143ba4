"""Version and digests of the model in the package; written by ``make base-model``."""

VERSION = "1"
DATA_DIGEST = "51e0705b7ef8e06f1b6fbc6409da74b3.dir"
FILES = {
    "MODEL_CARD.md": "254f3c77aded64ffca5634821d4d443870121e747e560fe1e8fdbf357bcdc57a",
    "architecture.json": "b4db97b27b202d5f93609c8bd77cc8a40db80b6ec7749332662c24746111376c",
    "profile.json": "de930b7c93b477a30047e314e2f3bacb1f353059b4f8f62bb50737365d4d104e",
    "weights.safetensors": "63a34b8bd4e6097d58505c46e296916a736b9ddefb80a65dcb3b4d9d2abbcb3c",
}
