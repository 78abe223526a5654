"""Pre-training of diffusion transformers as a chain, and their named axes."""

import torch
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_digits

import compt
from tests.layouts.outside.dit_model import DiT

BLOCK, FILE = "blocks.{block}", "dit.safetensors"


class DitLayout(compt.Layout):
    """The axes of DiT; exact at whole multiples, as its norms have no gains that pads could use."""

    patterns = {
        "patch.*": "embed <- 1 patch patch",
        "positions": "position -> embed",
        "time1.*": "hidden <- 16",
        "time2.*": "cond <- hidden",
        "classes.weight": "classes -> cond",
        f"{BLOCK}.modulation.*": "scale: (6 embed) <- cond",
        f"{BLOCK}.qkv.*": "(3 heads 8) <- embed",
        f"{BLOCK}.proj.*": f"embed <- (heads 8) * {BLOCK}.modulation.weight",
        f"{BLOCK}.fc1.*": "mlp <- embed",
        f"{BLOCK}.fc2.*": f"embed <- mlp * {BLOCK}.modulation.weight",
        "modulation.*": "scale: (2 embed) <- cond",
        "out.*": "pixels <- embed",
    }
    roles = {"cond": "hidden", "hidden": "hidden", "pixels": "fixed"}
    whole = frozenset({"embed"})

    def probe(self, module, generator):
        images, times = (torch.rand(*s, generator=generator) for s in [(2, 1, 8, 8), (2,)])
        weight, labels = module.out.weight, torch.tensor([3, 7])
        return {"noise": module(images.to(weight), times.to(weight), labels.to(weight.device))}


class Diffusion(compt.Paradigm):
    """Predict the noise in digits, given the time step and the class."""

    outputs = frozenset({"noise"})

    def build_model(self, member):
        return DiT(**member.model)

    def build_dataset(self, split):
        pixels, labels = load_digits(return_X_y=True)
        images = pixels.reshape(-1, 1, 8, 8).astype("float32") / 8 - 1
        samples = [{"images": images[i], "labels": label} for i, label in enumerate(labels)]
        return samples[1500:] if split == "val" else samples[:1500]

    def prepare(self, batch, *, generator, training=True):
        images = batch["images"]
        noise = torch.empty_like(images).normal_(generator=generator)
        times = torch.empty_like(images[:, 0, 0, 0]).uniform_(generator=generator)
        noised = images.lerp(noise, times[:, None, None, None])
        return {**batch, "noised": noised, "times": times, "noise": noise}

    def forward(self, model, batch):
        return {"noise": model(batch["noised"], batch["times"], batch["labels"])}

    def loss(self, outputs, batch):
        return {"mse": (outputs["noise"] - batch["noise"]).square().mean()}

    def metrics(self, model, split, batches, *, batches_of):
        losses = [self.loss(self.forward(model, batch), batch)["mse"] for batch in batches]
        mse = torch.stack(losses).mean().item()
        return {"mse": compt.Metric(mse, chance=1.0, higher_is_better=False)}

    def export(self, model, folder):
        save_file(model.state_dict(), folder / FILE)

    def recognises(self, path):
        return (path / FILE).is_file()

    def load(self, path):
        state = load_file(path / FILE)
        depth = len({name.split(".")[1] for name in state if name.startswith("blocks.")})
        model = DiT(len(state["out.weight"][0]), depth)
        model.load_state_dict(state)
        return model
