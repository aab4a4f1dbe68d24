package packet

// DecodeGeneral is Decode without what is quick for plain frames.
func (p *Parsed) DecodeGeneral(frame []byte) {
	*p = Parsed{}
	p.decode(frame)
}
