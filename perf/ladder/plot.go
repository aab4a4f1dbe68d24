package ladder

func plotTo(path string, r Report) error { return nil }
