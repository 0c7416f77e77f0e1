"""Training and prediction: sources -> survey -> split -> stream -> loop -> checkpoint -> bundle -> predict. No ray."""
