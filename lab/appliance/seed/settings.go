package seed

import (
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Settings are what an appliance can be told.
type Settings struct {
	Hostname string   // "": the image's own
	Keys     []string // lines of authorized_keys, of the user root
	Password string   // crypt(5) hash for the console, "": no password fits
	NTP      []string // servers; none: the image's own
	Files    []File   // below /etc/weir
	Links    []Link   // none: DHCP on all

	// Ignored says in words what of the seed has no effect, and why.
	Ignored []string
}

// File is one to be written.
type File struct {
	Path string
	Text []byte
}

// weirDir is the only folder that a seed may write files to.
const weirDir = "/etc/weir"

var (
	hostName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9-]{0,62})(\.[A-Za-z0-9-]{1,63})*$`)
	cryptTag = regexp.MustCompile(`^\$[0-9a-z]+\$[^:\n]+$`)
)

// Parse reads the files. What is wrong with one of them is in the error, and does not
// keep the others from having their effect.
func Parse(files Files) (Settings, error) {
	var s Settings
	var errs []error
	if text, ok := files[MetaData]; ok {
		errs = append(errs, s.metaData(text))
	}
	if text, ok := files[UserData]; ok {
		errs = append(errs, s.userData(text))
	}
	if text, ok := files[NetworkConfig]; ok {
		errs = append(errs, s.network(text))
	}
	if text, ok := files[WeirYAML]; ok {
		// Beside user-data's own idea of that file, which may be older.
		s.Files = slices.DeleteFunc(s.Files, func(f File) bool { return f.Path == weirDir+"/"+WeirYAML })
		s.Files = append(s.Files, File{Path: weirDir + "/" + WeirYAML, Text: text})
	}
	// It may name the others, and is checked before it is taken.
	slices.SortStableFunc(s.Files, func(a, b File) int {
		return strings.Compare(strconv.FormatBool(path.Base(a.Path) == WeirYAML), strconv.FormatBool(path.Base(b.Path) == WeirYAML))
	})
	return s, errors.Join(errs...)
}

func (s *Settings) ignore(format string, args ...any) {
	s.Ignored = append(s.Ignored, fmt.Sprintf(format, args...))
}

// mapping decodes a YAML mapping and leaves the values for later.
func mapping(text []byte) (map[string]yaml.Node, error) {
	var m map[string]yaml.Node
	err := yaml.Unmarshal(text, &m)
	return m, err
}

// each calls for every key of a mapping the function that reads it, in the keys' order,
// and says which nobody reads.
func (s *Settings) each(file string, m map[string]yaml.Node, read map[string]func(*yaml.Node) error) error {
	var errs []error
	for _, key := range slices.Sorted(maps.Keys(m)) {
		f, ok := read[key]
		if !ok {
			s.ignore("%s: %s: the appliance has no such setting", file, key)
			continue
		}
		node := m[key]
		if f == nil {
			continue
		}
		if err := f(&node); err != nil {
			errs = append(errs, fmt.Errorf("%s: %s: %w", file, key, err))
		}
	}
	return errors.Join(errs...)
}

// unread says which keys of a mapping nobody reads.
func (s *Settings) unread(where string, others map[string]any) {
	for _, key := range slices.Sorted(maps.Keys(others)) {
		s.ignore("%s: %s: the appliance has no such setting", where, key)
	}
}

func (s *Settings) metaData(text []byte) error {
	m, err := mapping(text)
	if err != nil {
		return fmt.Errorf("%s: %w", MetaData, err)
	}
	return s.each(MetaData, m, map[string]func(*yaml.Node) error{
		"instance-id":    nil, // what is new shows by itself, see [Apply]
		"local-hostname": s.hostname,
		"hostname":       s.hostname,
		"public-keys":    s.keys,
	})
}

func (s *Settings) userData(text []byte) error {
	if first, _, _ := strings.Cut(string(text), "\n"); strings.TrimSpace(first) != "#cloud-config" {
		return fmt.Errorf("%s: the first line is %.40q; want #cloud-config, as scripts and archives are not run", UserData, first)
	}
	m, err := mapping(text)
	if err != nil {
		return fmt.Errorf("%s: %w", UserData, err)
	}
	return s.each(UserData, m, map[string]func(*yaml.Node) error{
		"hostname":            s.hostname,
		"fqdn":                nil, // the host name is enough to be told apart
		"manage_etc_hosts":    nil, // always so
		"user":                nil, // Proxmox says which user the keys are for; here they are root's
		"ssh_authorized_keys": s.keys,
		"password":            s.password,
		"chpasswd":            s.passwords,
		"users":               s.users,
		"ntp":                 s.ntp,
		"write_files":         s.writeFiles,
	})
}

func (s *Settings) hostname(n *yaml.Node) error {
	var name string
	if err := n.Decode(&name); err != nil {
		return err
	}
	if name == "" {
		return nil
	}
	if !hostName.MatchString(name) {
		return fmt.Errorf("%q is no host name", name)
	}
	s.Hostname, _, _ = strings.Cut(name, ".")
	return nil
}

// keys takes a list, or a mapping whose values are keys (as meta-data of EC2 has it).
func (s *Settings) keys(n *yaml.Node) error {
	var list []string
	if n.Kind == yaml.MappingNode {
		var m map[string]string
		if err := n.Decode(&m); err != nil {
			return err
		}
		for _, key := range m {
			list = append(list, key)
		}
		slices.Sort(list)
	} else if err := n.Decode(&list); err != nil {
		return err
	}
	for _, key := range list {
		if key = strings.TrimSpace(key); key == "" || strings.Contains(key, "\n") {
			return fmt.Errorf("%.40q is no line of authorized_keys", key)
		}
		if !slices.Contains(s.Keys, key) {
			s.Keys = append(s.Keys, key)
		}
	}
	return nil
}

// password takes a hash. One in clear is refused: it would lie on the seed disk, and in
// the hypervisor, for everybody to read.
func (s *Settings) password(n *yaml.Node) error {
	var hash string
	if err := n.Decode(&hash); err != nil {
		return err
	}
	if !cryptTag.MatchString(hash) {
		return errors.New("want a hash, as `openssl passwd -6` makes one")
	}
	s.Password = hash
	return nil
}

func (s *Settings) passwords(n *yaml.Node) error {
	var c struct {
		Expire *bool // without effect: nobody changes a password here
		Users  []struct {
			Name     string
			Password yaml.Node
			Type     string
		}
		Others map[string]any `yaml:",inline"`
	}
	if err := n.Decode(&c); err != nil {
		return err
	}
	s.unread(UserData+": chpasswd", c.Others)
	for _, u := range c.Users {
		if u.Name != "root" || u.Type == "RANDOM" {
			s.ignore("%s: chpasswd: user %s: root with a hash is all there is", UserData, u.Name)
			continue
		}
		if err := s.password(&u.Password); err != nil {
			return err
		}
	}
	return nil
}

// users takes the keys of root, who is the only user, and of those who would be
// allowed to become root.
func (s *Settings) users(n *yaml.Node) error {
	if n.Kind != yaml.SequenceNode {
		return errors.New("want a list")
	}
	for _, item := range n.Content {
		if item.Kind != yaml.MappingNode {
			continue // "default"
		}
		var u user
		if err := item.Decode(&u); err != nil {
			return err
		}
		if err := s.user(&u); err != nil {
			return fmt.Errorf("%s: %w", u.Name, err)
		}
	}
	return nil
}

type user struct {
	Name   string
	Keys   yaml.Node      `yaml:"ssh_authorized_keys"`
	Sudo   any            // rules; nil and false: none
	Lock   bool           `yaml:"lock_passwd"` // no password fits
	Hash   yaml.Node      `yaml:"hashed_passwd"`
	Passwd yaml.Node      `yaml:"passwd"` // a hash, too
	Others map[string]any `yaml:",inline"`
}

func (s *Settings) user(u *user) error {
	where := UserData + ": users: " + u.Name
	if u.Name != "root" {
		if u.Sudo == nil || u.Sudo == false {
			s.ignore("%s: there is no user but root, and without sudo that is not for this one", where)
			return nil
		}
		s.ignore("%s: there is no user but root, who gets the keys", where)
	}
	s.unread(where, u.Others)
	if !u.Keys.IsZero() {
		if err := s.keys(&u.Keys); err != nil {
			return err
		}
	}
	for _, hash := range []*yaml.Node{&u.Passwd, &u.Hash} {
		if u.Name != "root" || u.Lock || hash.IsZero() {
			continue
		}
		if err := s.password(hash); err != nil {
			return err
		}
	}
	return nil
}

func (s *Settings) ntp(n *yaml.Node) error {
	var c struct {
		Enabled *bool
		Servers []string
		Pools   []string
		Others  map[string]any `yaml:",inline"`
	}
	if err := n.Decode(&c); err != nil {
		return err
	}
	s.unread(UserData+": ntp", c.Others)
	for _, server := range append(c.Servers, c.Pools...) {
		if server == "" || strings.ContainsAny(server, " \t\n") {
			return fmt.Errorf("%q is no server", server)
		}
		s.NTP = append(s.NTP, server)
	}
	return nil
}

// writeFiles takes files below /etc/weir: certificates, and weir.yaml where a
// hypervisor's own seed disk has no room for a file of that name. Everything else of the
// system is the image's.
func (s *Settings) writeFiles(n *yaml.Node) error {
	var list []struct {
		Path     string
		Content  string
		Encoding string
		Others   map[string]any `yaml:",inline"`
	}
	if err := n.Decode(&list); err != nil {
		return err
	}
	for _, f := range list {
		if path.Clean(f.Path) != f.Path || path.Dir(f.Path) != weirDir {
			s.ignore("%s: write_files: %s: only files in %s are written", UserData, f.Path, weirDir)
			continue
		}
		s.unread(UserData+": write_files: "+f.Path, f.Others)
		text := []byte(f.Content)
		var err error
		switch f.Encoding {
		case "", "text/plain":
		case "b64", "base64":
			text, err = base64.StdEncoding.DecodeString(strings.Join(strings.Fields(f.Content), ""))
		case "gz+b64", "gz+base64", "gzip+b64", "gzip+base64":
			if text, err = base64.StdEncoding.DecodeString(strings.Join(strings.Fields(f.Content), "")); err == nil {
				text, err = gunzip(text)
			}
		default:
			err = fmt.Errorf("encoding %q is neither b64 nor gz+b64", f.Encoding)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", f.Path, err)
		}
		s.Files = append(s.Files, File{Path: f.Path, Text: text})
	}
	return nil
}
