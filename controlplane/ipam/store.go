package ipam

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

const (
	storeFile    = "allocations.json"
	storeVersion = 1
)

// Store keeps allocations in a file, so that services have the same addresses
// after a restart, whatever was taken out of the configuration, or put in,
// before. Its methods may not be called at the same time.
type Store struct{ path string }

// NewStore returns the store in a folder, which is made when something is saved.
func NewStore(folder string) *Store { return &Store{path: filepath.Join(folder, storeFile)} }

// Path is that of the file.
func (s *Store) Path() string { return s.path }

type stored struct {
	Version     int          `json:"version"`
	Allocations []Allocation `json:"allocations"`
}

// Load reads what was saved last; nothing, if nothing ever was.
func (s *Store) Load() ([]Allocation, error) {
	text, err := os.ReadFile(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read allocations: %w", err)
	}
	all, err := parse(text)
	if err != nil {
		return nil, fmt.Errorf("read allocations of %s: %w; remove the file, and services get addresses as if they were new", s.path, err)
	}
	return all, nil
}

func parse(text []byte) ([]Allocation, error) {
	var f stored
	d := json.NewDecoder(bytes.NewReader(text))
	if err := d.Decode(&f); err != nil {
		return nil, err
	}
	if d.More() {
		return nil, errors.New("there is more behind the end")
	}
	if f.Version != storeVersion {
		return nil, fmt.Errorf("its version is %d, and this weir knows %d", f.Version, storeVersion)
	}
	for i, a := range f.Allocations {
		if a.Service == "" || !plain(a.Address) || a.Since.IsZero() {
			return nil, fmt.Errorf("allocation %d is without a service, an address or a time", i)
		}
	}
	return Merge(f.Allocations, nil), nil
}

// Save replaces the file as a whole.
func (s *Store) Save(all []Allocation) error {
	text, err := json.MarshalIndent(stored{storeVersion, Merge(all, nil)}, "", "  ")
	if err == nil {
		err = os.MkdirAll(filepath.Dir(s.path), 0o755)
	}
	if err == nil {
		err = write(s.path+".new", append(text, '\n'))
	}
	if err == nil {
		err = os.Rename(s.path+".new", s.path)
	}
	if err != nil {
		return fmt.Errorf("save allocations, which a restart would forget: %w", err)
	}
	return nil
}

// write puts text on the disk before it returns: what is renamed into place must
// not be empty after a power failure.
func write(path string, text []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Sync(), f.Close())
}
