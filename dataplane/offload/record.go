package offload

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
)

// record is what the file holds: the features that were on before weir switched
// them off, so that somebody who finds it can do by hand what it is for.
type record struct {
	Features []Feature `json:"switched_off"`
}

// recordPath names the file after the interface's index as well: an interface
// that was deleted and made anew has features of its own.
func recordPath(dir string, ifi *net.Interface) string {
	return filepath.Join(dir, fmt.Sprintf("offload-%s-%d.json", ifi.Name, ifi.Index))
}

// readRecord returns nothing if there is no record.
func readRecord(path string) ([]Feature, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read record of offloads: %w", err)
	}
	features, err := parseRecord(text)
	if err != nil {
		return nil, fmt.Errorf("read record of offloads %s: %w", path, err)
	}
	return features, nil
}

// parseRecord takes no feature but those that weir switches off: nothing else
// may be switched on because of a file.
func parseRecord(text []byte) ([]Feature, error) {
	var r record
	if err := json.Unmarshal(text, &r); err != nil {
		return nil, err
	}
	for _, f := range r.Features {
		switch f {
		case LRO, HardwareGRO, GRO, VLANStripped:
		default:
			return nil, fmt.Errorf("unknown feature %q", f)
		}
	}
	return union(nil, r.Features), nil
}

// writeRecord replaces the file as a whole, so that a process killed meanwhile
// leaves the old one or the new one.
func writeRecord(path string, features []Feature) error {
	text, err := json.Marshal(record{features})
	if err != nil {
		return fmt.Errorf("write record of offloads: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("write record of offloads: %w", err)
	}
	temp := path + ".new"
	err = os.WriteFile(temp, append(text, '\n'), 0o600)
	if err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		return fmt.Errorf("write record of offloads: %w", err)
	}
	return nil
}

func removeRecord(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove record of offloads: %w", err)
	}
	return nil
}

// union returns a and those of b that are not in it, each once.
func union(a, b []Feature) []Feature {
	all := slices.Clone(a)
	for _, f := range b {
		if !slices.Contains(all, f) {
			all = append(all, f)
		}
	}
	return all
}
