"""What a run works on: its stores, their splits and frames, and the body that its encoders see."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssl_skeleton.data.packed import PackedClips
from ssl_skeleton.data.splits import Split
from ssl_skeleton.data.store import Store, meta_sum, open_store
from ssl_skeleton.environment import pick_device
from ssl_skeleton.errors import UserError
from ssl_skeleton.files import read_json
from ssl_skeleton.recipe import Body, Recipe, body_of, load_recipe
from ssl_skeleton.skeleton.layout import Layout
from ssl_skeleton.skeleton.remap import remap_matrix

RECIPE, BODY, ENVIRONMENT = "recipe.yaml", "body.json", "environment.json"


@dataclass(frozen=True)
class RunData:
    """A run folder and its recipe, and the data that the recipe names."""

    folder: Path
    recipe: Recipe

    @cached_property
    def device(self) -> torch.device:
        """Where it computes."""
        return pick_device(self.recipe.device)

    @cached_property
    def stores(self) -> tuple[Store, ...]:
        """The stores it learns from, or is evaluated on."""
        return tuple(open_store(Path(store)) for store in self.recipe.data.stores)

    @property
    def store(self) -> Store:
        """The one store; UserError when there are several."""
        if len(self.stores) > 1:
            raise UserError(
                f"{self.folder}: learned from {len(self.stores)} stores; say which one to evaluate on: "
                f"data.store=STORE data.split=SPLIT"
            )
        return self.stores[0]

    @property
    def store_sums(self) -> dict[str, str]:
        """A sum of what each store holds, by its path."""
        return {str(store.path): meta_sum(store.meta.to_tree()) for store in self.stores}

    def noted(self) -> dict[str, Any]:
        """What is noted of the run's beginning; nothing where that is gone."""
        path = self.folder / ENVIRONMENT
        tree = read_json(path) if path.is_file() else {}
        return tree if isinstance(tree, dict) else {}

    def prepared_again(self) -> list[str]:
        """The paths of the stores that hold something else than when the run began, where that was noted."""
        sums = self.noted().get("stores")
        if not isinstance(sums, dict):
            return []
        return [store for store, found in self.store_sums.items() if sums.get(store, found) != found]

    @cached_property
    def splits(self) -> tuple[Split, ...]:
        """The training and test clips of every store."""
        pairs = zip(self.stores, self.recipe.data.splits, strict=True)
        return tuple(store.split(name) for store, name in pairs)

    @cached_property
    def body(self) -> Body:
        """The joints and coordinates that its encoders see, which are those that they were trained on.

        A run that does not keep them yet has those of the store that it learned from.
        """
        kept, began = self.folder / BODY, self.folder / RECIPE
        if began.is_file() and kept.is_file():  # one without a recipe is left of a start that was killed
            return Body.from_tree(read_json(kept), str(kept))
        data = self.recipe.data
        if began.is_file():
            data = load_recipe(began).data
        if data.stores == self.recipe.data.stores:
            return body_of(data, self.stores[0])
        try:
            return body_of(data, open_store(Path(data.stores[0])))
        except UserError as error:
            raise UserError(f"{self.folder}: has no {BODY} to see other stores with: {error}") from None

    @property
    def layout(self) -> Layout:
        """The joints that its encoders see."""
        return self.body.layout

    @cached_property
    def packed(self) -> PackedClips:
        """The frames of all stores; UserError when the run cannot see one."""
        return self.pack(self.stores)

    def pack(self, stores: Sequence[Store]) -> PackedClips:
        """The frames of stores as the run sees them; UserError when it cannot see one."""
        data = self.recipe.data
        for store in stores:
            self.check_body(store)
        return PackedClips(
            stores,
            data.bodies,
            self.device,
            self.layout,
            data.repair,
            order=data.order,
            residence=data.residence,
        )

    def check_body(self, store: Store) -> None:
        """Raise UserError when a store lacks joints that the run sees, or has other coordinates."""
        self.check_seen(store.path, store.layout, store.meta.coordinates)

    def check_seen(self, path: Path, layout: Layout, coordinates: tuple[str, ...]) -> None:
        """The same of a store that is still to be made of the recordings at `path`."""
        wanted = self.body.coordinates
        if coordinates != wanted:
            raise UserError(
                f"{path}: has {', '.join(coordinates)}, but the run sees {', '.join(wanted)}; choose "
                "what has the same coordinates"
            )
        try:
            remap_matrix(layout, self.layout)
        except UserError as error:
            raise UserError(f"{path}: {error}") from None

    @property
    def training_clips(self) -> list[Tensor]:
        """The clips of `packed` that it trains on, (N,) of every store."""
        begins = itertools.accumulate(map(len, self.stores[:-1]), initial=0)
        parts = zip(self.splits, begins, strict=True)
        return [torch.from_numpy(split.train + begin) for split, begin in parts]

    def clip_names(self, index: Tensor) -> list[str]:
        """The names of clips (N,) of `packed`; of several stores, with that of the store before it."""
        several = len(self.stores) > 1
        names = [
            f"{store.path.name}/{name}" if several else name for store in self.stores for name in store.names
        ]
        return [names[clip] for clip in index.tolist()]
