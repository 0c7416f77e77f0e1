"""Fine-tune tissue classifiers, and label whole-slide images with them, on one machine or a Ray cluster.

Read the modules in the order of the data:

    label    collection -> slide -> tissue mask -> grid -> regions -> tiles -> probabilities -> parts
             -> one file per slide
    train    sources -> survey -> split -> stream -> loop (a generator of epochs) -> checkpoints -> bundle
    evaluate sources -> survey -> probabilities -> metrics -> pictures
    crossval sources -> survey -> folds -> a training run for each -> predictions of all -> metrics -> pictures

- `histo.slides`: `collection`, `slide`, `window`, `tissue`, `resolution`, `grid`, `tiles`, `plan`
- `histo.learn`: `source` (with `listing`, `folder`, `npz`, `manifest`, `tile_table`, `images`), `survey`, `subset`,
  `split`, `leaks`, `stream`, `augment`, `model`, `loop`, `calibration`, `checkpoint`, `bundle`, `predict`, `metrics`,
  `curves`, `evaluation`, `baseline`
- `histo.report`: pictures of the results
- `histo.pipelines`: `train` (with `train_spec`, `train_data`, `train_checks`, `train_run`, `train_worker`), `crossval`,
  `label` (with `label_spec`, `lock`, `resume`, `label_run`, `plans`, `planning`, `pool`, `region`, `isolation`, `work`,
  `parts`, `ledger`), `evaluate` (with `predict_cases`, `past_run`), `prepare_tiles`; only these import ray
- beneath them: `resample`, `tables`, `store`, `spec`, `errors`
"""
