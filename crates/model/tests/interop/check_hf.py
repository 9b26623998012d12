"""Holds saved models against `transformers`: same logits both ways, same token ids.

usage: check_hf.py PATH_TO_INTEROP_BINARY PATH_TO_SHOAL   (cargo build --release -p shoal-model --example interop)
needs: torch, transformers, safetensors
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

TOLERANCE = 1e-3


def logits_of(model, tokens):
    with torch.no_grad():
        return model.eval()(torch.tensor([tokens])).logits[0].float()


def compare(name, theirs, folder):
    ours = load_file(folder / "logits.safetensors")["logits"]
    assert ours.shape == theirs.shape, f"{name}: {ours.shape} against {theirs.shape}"
    worst = (ours - theirs).abs().max().item()
    size = theirs.abs().mean().item()
    print(f"{name}: largest difference {worst:.1e}, mean logit {size:.2f}")
    assert worst <= TOLERANCE, f"{name}: logits differ by {worst}, allowed is {TOLERANCE}"
    assert size > 0.05, f"{name}: logits are too small to tell anything"


def ours_in_transformers(binary, home):
    subprocess.run([binary, "make", home], check=True)
    for folder in sorted(home.iterdir()):
        tokens = json.loads((folder / "tokens.json").read_text())
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        assert isinstance(model, LlamaForCausalLM)
        compare(f"ours, {folder.name}", logits_of(model, tokens), folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        about = json.loads((folder / "texts.json").read_text())
        assert tokenizer.eos_token_id == about["end"], (tokenizer.eos_token_id, about["end"])
        for text, ids in about["texts"]:
            found = tokenizer(text, add_special_tokens=False)["input_ids"]
            assert found == ids, f"{folder.name}: {text!r} is {found}, not {ids}"
            assert tokenizer.decode(ids) == text, (tokenizer.decode(ids), text)
        print(f"ours, {folder.name}: {len(about['texts'])} texts have the same ids")
        made = model.generate(
            torch.tensor([tokens[:4]]), max_new_tokens=4, do_sample=False, pad_token_id=about["end"]
        )
        assert made.shape[1] > 4


def theirs_in_ours(binary, home):
    scaled = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16,
    }
    cases = {
        "plain": ({}, torch.float32, {}),
        "scaled": ({"rope_scaling": scaled, "rope_theta": 500000.0}, torch.float32, {}),
        "tied": ({"tie_word_embeddings": True}, torch.float32, {}),
        "sharded": ({}, torch.float32, {"max_shard_size": "100KB"}),
        "bf16": ({}, torch.bfloat16, {}),
        "f16": ({}, torch.float16, {}),
    }
    for name, (changes, dtype, saving) in cases.items():
        torch.manual_seed(7)
        config = LlamaConfig(
            vocab_size=131,
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=64,
            initializer_range=0.2,
            **changes,
        )
        model = LlamaForCausalLM(config)
        for key, value in model.named_parameters():
            if "norm" in key:
                torch.nn.init.uniform_(value, 0.5, 1.5)
        folder = home / name
        model.to(dtype).save_pretrained(folder, **saving)
        if name == "sharded":
            assert (folder / "model.safetensors.index.json").exists()
        tokens = [(i * 29 + 3) % 131 for i in range(64)]
        (folder / "tokens.json").write_text(json.dumps(tokens))
        subprocess.run([binary, "logits", folder], check=True)
        again = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
        compare(f"theirs, {name}", logits_of(again, tokens), folder)


def trained_by_a_swarm(shoal, binary, home):
    (home / "spec.toml").write_text('stages = 2\n[model]\npreset = "micro"\n[cut]\nkind = "plain"\nwire = "bf16"\n')
    (home / "text.txt").write_text("".join(f"fish {i} follows {i * i % 97} others home\n" for i in range(3000)))
    up = ["up", "--spec", "spec.toml", "--data", "text.txt", "--epochs", "2", "--replicas", "1", "--validators", "0"]
    subprocess.run([shoal, *up, "--dir", "run"], check=True, cwd=home, stdout=subprocess.DEVNULL)
    subprocess.run([shoal, "run", "export", "run", "out"], check=True, cwd=home)
    folder = home / "out"
    tokens = list("fish 7 follows 49 others home".encode())
    (folder / "tokens.json").write_text(json.dumps(tokens))
    subprocess.run([binary, "logits", folder], check=True)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    compare("trained by a swarm, exported", logits_of(model, tokens), folder)


def main():
    binary, shoal = (Path(path).resolve() for path in sys.argv[1:3])
    with tempfile.TemporaryDirectory() as home:
        swarm = Path(home) / "swarm"
        swarm.mkdir()
        trained_by_a_swarm(shoal, binary, swarm)
        for name, check in [("ours", ours_in_transformers), ("theirs", theirs_in_ours)]:
            folder = Path(home) / name
            folder.mkdir()
            check(binary, folder)


if __name__ == "__main__":
    main()
