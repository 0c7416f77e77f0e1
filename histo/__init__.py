"""Fine-tune tissue and study classifiers, and label slides and studies with them, on one machine or a Ray cluster.

Read the modules in the order of the data:

    label    collection -> slide -> tissue mask -> grid -> regions -> tiles -> probabilities -> parts
             -> one file per slide
    train    sources -> survey -> split -> stream -> loop (a generator of epochs) -> checkpoints -> bundle
    evaluate sources -> survey -> probabilities -> metrics -> pictures
    crossval sources -> survey -> folds -> a training run for each -> predictions of all -> metrics -> pictures
    volumes  studies -> series -> slices -> framing -> intensity -> one file per study

- `histo.slides`: `collection`, `slide`, `window`, `tissue`, `resolution`, `grid`, `tiles`, `plan`
- `histo.volumes`: `studies`, `nifti`, `dicom`, `series`, `geometry`, `slices`, `framing`, `intensity`, `preparation`
- `histo.learn`: `source` (with `listing`, `folder`, `npz`, `manifest`, `tile_table`, `images`), `survey`, `subset`,
  `split`, `leaks`, `stream`, `augment`, `model`, `loop`, `calibration`, `checkpoint`, `bundle`, `predict`, `metrics`,
  `curves`, `evaluation`, `baseline`
- `histo.report`: pictures of the results
- `histo.pipelines`: `train` (with `train_spec`, `train_data`, `train_checks`, `train_run`, `train_worker`), `crossval`,
  `label` (with `label_spec`, `lock`, `resume`, `label_run`, `plans`, `planning`, `pool`, `region`, `isolation`, `work`,
  `parts`, `ledger`), `evaluate` (with `predict_cases`, `past_run`), `prepare_tiles`,
  `prepare_volumes` and `label_studies` (with `study_work`, `study_ledger`, `study_run`); only these import ray
- beneath them: `resample`, `tables`, `volume_file`, `store`, `spec`, `regular_file`, `errors`
"""
