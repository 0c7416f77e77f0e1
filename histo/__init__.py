"""Fine-tune tissue classifiers, and label whole-slide images with them, on one machine or a Ray cluster.

Read the modules in the order of the data:

    label    collection -> slide -> tissue mask -> grid -> regions -> tiles -> probabilities -> parts
             -> one file per slide
    train    sources -> survey -> split -> stream -> loop (a generator of epochs) -> checkpoints -> bundle

- `histo.slides`: `collection`, `slide`, `window`, `tissue`, `resolution`, `grid`, `tiles`, `plan`
- `histo.learn`: `source` (with `listing`, `folder`, `npz`, `manifest`, `tile_table`, `images`), `survey`, `subset`,
  `split`, `leaks`, `stream`, `augment`, `model`, `loop`, `checkpoint`, `bundle`, `predict`, `metrics`
- `histo.report`: pictures of the results
- `histo.pipelines`: `train`, `label` (with `region`, `work`, `parts`, `ledger`), `evaluate`, `prepare_tiles`; only
  these import ray
- beneath them: `resample`, `tables`, `store`, `spec`, `errors`
"""
