"""Training and prediction: source -> split -> stream -> loop -> checkpoint -> bundle -> predict -> metrics. No ray."""
